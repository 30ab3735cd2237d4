-- Lease up to :limit messages for an agent, from its mailbox and the queue of its type in its session, the best of
-- both first; returns rank, id and record of each, to be sorted by rank and id (`returning` has no order).
--
-- First what is due moves: scheduled ones become ready, leases that ran out come back (or are dead, past the retry
-- limit), expired ones die, and what has ended already, by hand say, loses its timer; of these two mailboxes only, so
-- that others' timers cost nothing. A lease that ran out keeps `leased_by`: until somebody takes the message, its former
-- holder may still acknowledge it. Then the head of each mailbox is read off the ready index. With
-- priority_aging_seconds the heads of the ten levels of each mailbox compete by the time at which they would have been
-- sent had a level been worth that many seconds.
insert into refusals
select 'unknown_agent' where not exists (select 1 from agent_registry where agent_id = :agent)
union all
select 'unknown_type' where :type is not null and not exists (select 1 from message_types where name = :type);

update agent_registry set last_heartbeat = :now
where agent_id = :agent and last_heartbeat < strftime('%Y-%m-%d %H:%M:%f', :now, '-5 seconds');

-- A session that was active after now was so before somebody set the clock back. Leases of that time would last as much
-- longer; they run out now instead, which receipts keep harmless.
update agent_messages set due_at = :now
where id in (
  select m.id
  from agent_registry a cross join coordination_sessions s cross join agent_messages m  -- in this order
  where a.agent_id = :agent and s.session_id = a.session_id
    and s.last_activity > strftime('%Y-%m-%d %H:%M:%f', :now, '+5 seconds')
    and m.mailbox in (:agent, '@' || a.agent_type || '/' || a.session_id) and m.due_at is not null
    and m.status = 'leased' and m.delivered_at > strftime('%Y-%m-%d %H:%M:%f', :now, '+5 seconds'));

update agent_messages set
  status = case
    when status in ('acknowledged', 'dead') then status
    when expires_at <= :now then 'dead'
    when status = 'leased' and retry_count >= retry_limit then 'dead'
    else 'ready' end,
  dead_reason = case
    when status in ('acknowledged', 'dead') then dead_reason
    when expires_at <= :now then 'expired'
    when status = 'leased' and retry_count >= retry_limit then 'retries_exhausted' end,
  retry_count = retry_count + (status = 'leased' and coalesce(expires_at > :now, 1) and retry_count < retry_limit),
  due_at = iif(expires_at > :now and status not in ('acknowledged', 'dead'), expires_at, null)
from (select (select cast(value as double precision) from agent_coordination_config
  where key = 'message_retry_limit') as retry_limit) settings
where id in (
  select id from agent_messages
  where mailbox in (:agent, (select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent))
    and due_at <= :now
  order by due_at limit 10000);

update agent_messages set
  status = 'leased', leased_by = :agent, delivery = delivery + 1, delivered_at = :now,
  due_at = strftime('%Y-%m-%d %H:%M:%f', :now, '+' || coalesce(:lease,
    (select value from agent_coordination_config where key = 'lease_seconds')) || ' seconds')
where id in (
  select id from (
    select * from (
      select id, -priority as rank from agent_messages
      where mailbox = :agent and status = 'ready' and (:type is null or message_type = :type)
        and (expires_at is null or expires_at > :now)
        and (select cast(value as real) from agent_coordination_config where key = 'priority_aging_seconds') = 0
      order by priority desc, id limit :limit)
    union all
    select * from (
      select id, -priority as rank from agent_messages
      where mailbox = (select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent)
        and status = 'ready' and (:type is null or message_type = :type)
        and (expires_at is null or expires_at > :now)
        and (select cast(value as real) from agent_coordination_config where key = 'priority_aging_seconds') = 0
      order by priority desc, id limit :limit)
    union all
    select m.id, julianday(m.created_at) * 86400.0 - m.priority * aging.seconds as rank
    from (select cast(value as real) as seconds from agent_coordination_config where key = 'priority_aging_seconds') aging
    cross join json_each('[1,2,3,4,5,6,7,8,9,10]') level
    cross join (select :agent as name union all
      select '@' || agent_type || '/' || session_id from agent_registry where agent_id = :agent) box
    cross join agent_messages m
    where aging.seconds > 0 and m.id in (
      select id from agent_messages
      where mailbox = box.name and status = 'ready' and priority = level.value
        and (:type is null or message_type = :type) and (expires_at is null or expires_at > :now)
      order by id limit :limit))
  order by rank, id limit :limit)
returning
  iif((select cast(value as real) from agent_coordination_config where key = 'priority_aging_seconds') = 0, -priority,
    julianday(created_at) * 86400.0 - priority
      * (select cast(value as real) from agent_coordination_config where key = 'priority_aging_seconds')) as rank,
  id,
  json_object(
    'id', id, 'session_id', session_id, 'from_agent', from_agent, 'to_agent', to_agent, 'message_type', message_type,
    'payload', iif(json_valid(payload), json(payload), null), 'priority', priority, 'status', status, 'created_at', replace(created_at, ' ', 'T') || 'Z',
    'delivered_at', replace(delivered_at, ' ', 'T') || 'Z', 'acknowledged_at', replace(acknowledged_at, ' ', 'T') || 'Z',
    'retry_count', retry_count, 'due_at', replace(due_at, ' ', 'T') || 'Z', 'expires_at', replace(expires_at, ' ', 'T') || 'Z',
    'leased_by', leased_by, 'receipt', id || '.' || delivery, 'idempotency_key', idempotency_key,
    'correlation_id', correlation_id, 'reply_to', reply_to, 'dead_reason', dead_reason, 'reason', reason,
    'traceparent', traceparent, 'digest', digest) as record;
