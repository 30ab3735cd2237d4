-- Who waits on whom: what is leased, by its holder; what is ready (as in bus/queues.sql), by the mailbox it waits in, with
-- the oldest of each;
-- agents that are paused; agents that were spawned and not started. One row each: kind, who waits, on whom, how many,
-- what it is about, since when; of whom it waits on: status, heartbeat and process, when it is registered; and how many
-- agents are free, of a type's queue.
with busy as materialized (
  select distinct leased_by as agent_id from agent_messages indexed by agent_messages_timers
  where due_at is not null and status = 'leased')
select w.kind, w.waiter, w.owner, w.number, w.subject, replace(w.since, ' ', 'T') || 'Z', o.agent_id, o.status,
  replace(o.last_heartbeat, ' ', 'T') || 'Z', o.host, o.pid, o.pid_namespace, o.process_started_at, o.boot_id,
  w.free
from (
  select case when m.due_at > :now then 'leased' else 'lapsed' end as kind, m.from_agent as waiter, m.leased_by as owner, 1 as number, 'message ' || m.id as subject,
    coalesce(m.delivered_at, m.created_at) as since, cast(null as bigint) as free
  from agent_messages m indexed by agent_messages_timers
  where m.due_at is not null and m.status = 'leased'
  union all
  select 'ready', m.from_agent, m.to_agent, box.number, 'message ' || m.id, m.created_at, (
      select count(*) from agent_registry a
      where substr(m.to_agent, 1, 1) = '@' and a.session_id = m.session_id and a.agent_type = substr(m.to_agent, 2)
        and a.status not in ('completed', 'failed', 'terminated') and a.agent_id not in (select agent_id from busy))
  from (
    select min(first) as first, cast(sum(number) as integer) as number from (
      select mailbox, min(id) as first, count(*) as number
      from agent_messages indexed by agent_messages_ready
      where status = 'ready' and id not in (
        select id from agent_messages indexed by agent_messages_timers where due_at <= :now and status = 'ready')
      group by mailbox
      union all
      select mailbox, min(id), count(*)
      from agent_messages indexed by agent_messages_timers
      where due_at <= :now and status = 'scheduled' and (expires_at is null or expires_at > :now)
      group by mailbox) part
    group by mailbox) box
  join agent_messages m on m.id = box.first
  union all
  select 'paused', agent_id, cast(null as text), 1, coalesce(current_task, session_id), last_heartbeat,
    cast(null as bigint)
  from agent_registry where status = 'paused'
  union all
  select 'spawned', coalesce(registry_id, agent_type || ' ' || agent_id), cast(null as text), 1, task_id, spawned_at,
    cast(null as bigint)
  from agent_lifecycle indexed by agent_lifecycle_open
  where status in ('spawned', 'running') and started_at is null) w
left join agent_registry o on o.agent_id = w.owner
order by w.since, w.kind, w.waiter, w.owner, w.subject limit :limit;
