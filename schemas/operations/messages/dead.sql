-- The dead messages of a session, or of all (null), oldest first; those that expired while nobody held them, too, which
-- have a timer until a receiver buries them.
select record from message_records
where id in (
  select id from agent_messages indexed by agent_messages_dead
  where status = 'dead' and (:session is null or session_id = :session)
  union all
  select id from agent_messages
  where due_at <= :now and expires_at <= :now and status in ('scheduled', 'ready') and leased_by is null
    and (:session is null or session_id = :session))
order by id limit :limit;
