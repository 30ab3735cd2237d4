-- Messages that were not looked at yet, in their order, at most :limit of them: id, record, and the life of the sender at
-- that time: its id, session and trace context.
select m.id, m.record, l.agent_id, l.session_id, l.traceparent
from message_records m
left join agent_lifecycle l on l.agent_id = (
  select agent_id from agent_lifecycle indexed by agent_lifecycle_registry
  where registry_id = m.from_agent and spawned_at <= m.created_at and coalesce(completed_at, '9999-12-31') >= m.created_at
  order by spawned_at desc limit 1)
where m.id > (select message_id from trace_exports where target = :target)
order by m.id limit :limit;
