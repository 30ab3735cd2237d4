-- The dead messages of a session, or of all (null), oldest first.
select record from message_records
where id in (
  select id from agent_messages indexed by agent_messages_dead
  where status = 'dead' and (:session is null or session_id = :session))
order by id limit :limit;
