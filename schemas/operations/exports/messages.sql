-- Messages that were not looked at yet, in their order, at most :limit of them: id, record, and the life of the sender at
-- that time: its id, session and trace context. One that was found gone ended with its last heartbeat, and those are some
-- seconds apart (agents/beat.sql): what it sent within ten seconds of that is its own.
select m.id, m.record, l.agent_id, l.session_id, l.traceparent
from message_records m
left join agent_lifecycle l on l.agent_id = (
  select agent_id from agent_lifecycle indexed by agent_lifecycle_registry
  where registry_id = m.from_agent and spawned_at <= m.created_at and (coalesce(completed_at, '9999-12-31') >= m.created_at
    or (unseen = 1 and completed_at >= strftime('%Y-%m-%d %H:%M:%f', m.created_at, '-10 seconds')))
  order by spawned_at desc limit 1)
where m.id > (select message_id from trace_exports where target = :target)
  /*postgres and m.id < coalesce((
    select min(u.id) from agent_messages u
    where u.id > (select message_id from trace_exports where target = :target)
      and age(u.xmin) <= age(pg_snapshot_xmin(pg_current_snapshot())::xid)), 9223372036854775807) */
order by m.id limit :limit;
