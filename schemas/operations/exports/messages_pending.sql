-- Messages that had not ended when they were looked at, and now have (a dead one as often as it dies of another delivery),
-- as in messages.sql; or that are gone (null).
select p.id, m.record, l.agent_id, l.session_id, l.traceparent
from trace_exports_pending p
left join message_records m on m.id = p.id
left join agent_lifecycle l on l.agent_id = (
  select agent_id from agent_lifecycle indexed by agent_lifecycle_registry
  where registry_id = m.from_agent and spawned_at <= m.created_at and (coalesce(completed_at, '9999-12-31') >= m.created_at
    or (unseen = 1 and completed_at >= strftime('%Y-%m-%d %H:%M:%f', m.created_at, '-10 seconds')))
  order by spawned_at desc limit 1)
where p.target = :target and p.kind = 'message'
  and (m.id is null or m.status = 'acknowledged' or (m.status = 'dead' and m.delivery > p.delivery))
order by p.id limit :limit;
