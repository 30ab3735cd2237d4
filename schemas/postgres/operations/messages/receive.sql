-- Differs: claimers here work at the same time, so that rows are locked as they are chosen, and others' are passed over.
--
-- What it does and returns is what schemas/operations/messages/receive.sql says. Each mailbox offers a few more of its
-- heads than are wanted, since some may be locked, and many more when all of those are; the limit counts those that could
-- be locked. No lock is waited for.
insert into refusals
select 'unknown_agent' where not exists (select 1 from agent_registry where agent_id = :agent);

update agent_registry set last_heartbeat = :now
where agent_id = :agent and last_heartbeat < :now - interval '5 seconds';

-- A session that was active after now was so before somebody set the clock back: its leases run out now.
update agent_messages set due_at = :now
where status = 'leased' and delivered_at > :now + interval '5 seconds' and due_at is not null
  and mailbox in (:agent, (select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent))
  and exists (
    select 1 from agent_registry a join coordination_sessions s on s.session_id = a.session_id
    where a.agent_id = :agent and s.last_activity > :now + interval '5 seconds');

with due as materialized (
  select id from agent_messages
  where mailbox in (:agent, (select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent))
    and due_at <= :now
  order by due_at limit 10000 for update skip locked)
update agent_messages m set
  status = case
    when expires_at <= :now then 'dead'
    when status = 'leased' and retry_count
      >= (select value::double precision from agent_coordination_config where key = 'message_retry_limit') then 'dead'
    else 'ready' end,
  dead_reason = case
    when expires_at <= :now then 'expired'
    when status = 'leased' and retry_count
      >= (select value::double precision from agent_coordination_config where key = 'message_retry_limit')
      then 'retries_exhausted' end,
  retry_count = retry_count + case when status = 'leased' and coalesce(expires_at > :now, true) and retry_count
      < (select value::double precision from agent_coordination_config where key = 'message_retry_limit')
    then 1 else 0 end,
  due_at = case when expires_at > :now then expires_at end
from due where m.id = due.id and m.due_at <= :now;

-- Chosen and taken by two statements: were it one, a row that changed after its snapshot would make PostgreSQL work the
-- choice out again in the middle of it (EvalPlanQual), lock other rows, and take more than the limit.
with chosen as materialized (
  select m.id from message_heads(:agent, :type, :now, :limit + 8) c
  join agent_messages m on m.id = c.id and m.status = 'ready'
  order by c.rank, c.id limit :limit for update of m skip locked),
more as materialized (
  select m.id from message_heads(:agent, :type, :now, :limit + 1000) c
  join agent_messages m on m.id = c.id and m.status = 'ready'
  where not exists (select 1 from chosen)
  order by c.rank, c.id limit :limit for update of m skip locked)
select set_config('agent_bus.chosen',
  array(select id from chosen union all select id from more)::text, true);

update agent_messages m set
  status = 'leased', leased_by = :agent, delivery = delivery + 1, delivered_at = :now,
  due_at = strftime('', :now, '+' || coalesce(:lease::text,
    (select value from agent_coordination_config where key = 'lease_seconds')) || ' seconds')
where m.id = any (current_setting('agent_bus.chosen')::bigint[])
returning
  case when (select value::double precision from agent_coordination_config where key = 'priority_aging_seconds') = 0
    then -priority else julianday(created_at) * 86400.0 - priority
      * (select value::double precision from agent_coordination_config where key = 'priority_aging_seconds') end as rank,
  m.id, json_object(
  'id', m.id, 'session_id', session_id, 'from_agent', from_agent, 'to_agent', to_agent, 'message_type', message_type,
  'payload', payload, 'priority', priority, 'status', status, 'created_at', replace(created_at, ' ', 'T') || 'Z',
  'delivered_at', replace(delivered_at, ' ', 'T') || 'Z', 'acknowledged_at', replace(acknowledged_at, ' ', 'T') || 'Z',
  'retry_count', retry_count, 'due_at', replace(due_at, ' ', 'T') || 'Z', 'expires_at', replace(expires_at, ' ', 'T') || 'Z',
  'leased_by', leased_by, 'receipt', m.id || '.' || delivery, 'idempotency_key', idempotency_key,
  'correlation_id', correlation_id, 'reply_to', reply_to, 'dead_reason', dead_reason, 'reason', reason,
  'traceparent', traceparent, 'digest', digest) as record;
