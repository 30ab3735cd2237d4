-- The mailboxes in which something is ready, the fullest first: mailbox, how many, since when the oldest waits. What has
-- expired is not counted; what was scheduled and is due is, though no receiver has moved it yet.
select box.mailbox, box.number, replace(m.created_at, ' ', 'T') || 'Z'
from (
  select mailbox, cast(sum(number) as integer) as number, min(first) as first from (
    select mailbox, count(*) as number, min(id) as first
    from agent_messages indexed by agent_messages_ready
    where status = 'ready' and id not in (
      select id from agent_messages indexed by agent_messages_timers where due_at <= :now and status = 'ready')
    group by mailbox
    union all
    select mailbox, count(*), min(id)
    from agent_messages indexed by agent_messages_timers
    where due_at <= :now and status = 'scheduled' and (expires_at is null or expires_at > :now)
    group by mailbox) part
  group by mailbox) box
join agent_messages m on m.id = box.first
order by box.number desc, box.mailbox limit :limit;
