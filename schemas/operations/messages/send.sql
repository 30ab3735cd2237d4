-- Store one message for one mailbox, or for the queue of a type; returns its id and address.
--
-- The session is the sender's; a sender that is not registered has none, and the table refuses the row for it
-- (unknown_agent). With an idempotency key the first message sent under it answers for every later one, provided that
-- they say the same. Payloads are compared as JSON: each value under the decoded path of keys that leads to it, so that
-- spaces, escapes and the order of keys don't matter; invalid JSON is left to the table to refuse.
-- unless :keyless
/*sqlite*/
insert into refusals
with recursive
  documents (pair, side, payload) as (
    select m.id, 1, m.payload from sent m where m.payload <> :payload
    union all select m.id, 2, :payload from sent m where m.payload <> :payload),
  parts (pair, side, id, parent, key, kind, atom) as materialized (
    select d.pair, d.side, j.id, j.parent, j.key, iif(j.type = 'integer', 'real', j.type), j.atom
    from documents d, json_tree(d.payload) j),
  nodes (pair, side, id, path, kind, atom) as (
    select pair, side, id, '', kind, atom from parts where parent is null
    union all
    select n.pair, n.side, p.id, n.path || '/' || json_quote(p.key), p.kind, p.atom
    from nodes n join parts p on p.pair = n.pair and p.side = n.side and p.parent = n.id),
  sent (id, message_type, payload) as (
    select id, message_type, payload from agent_messages
    where :key is not null and idempotency_key = :key and from_agent = :from and to_agent = :to and json_valid(:payload))
select 'key_reused' from sent where message_type <> :type
union all
select 'key_reused' from nodes group by pair, path, kind, atom having count(*) <> 2;
/*end*/
/*postgres
insert into refusals
select 'key_reused' from agent_messages
where :key is not null and idempotency_key = :key and from_agent = :from and to_agent = :to
  and (message_type <> :type or payload::jsonb <> :payload::jsonb);
*/

insert into agent_messages (session_id, from_agent, to_agent, message_type, priority, status, created_at, due_at,
  expires_at, idempotency_key, correlation_id, reply_to, payload, traceparent, digest)
values ((select session_id from agent_registry where agent_id = :from), :from, :to, :type, :priority,
  iif(:delay > 0, 'scheduled', 'ready'), :now,
  /*sqlite*/
  iif(:delay > 0, strftime('%Y-%m-%d %H:%M:%f', :now, '+' || :delay || ' seconds'), null),
  iif(:expires is null, null, strftime('%Y-%m-%d %H:%M:%f', :now, '+' || :expires || ' seconds'))
  /*end*/
  /*postgres  -- each part of an expression costs here, used or not
  case when :delay > 0 then (:now + :delay * interval '1 second')::timestamptz(3) end,
  (:now + :expires * interval '1 second')::timestamptz(3)
  */, :key, :correlation, :reply_to, :payload, :traceparent, :digest)
on conflict (from_agent, to_agent, idempotency_key) where idempotency_key is not null
do update set idempotency_key = excluded.idempotency_key
/*postgres returning id, to_agent */;

-- For `returning` SQLite would make a temporary table.
-- unless :keyless
/*sqlite*/
select coalesce((select id from agent_messages where idempotency_key = :key and from_agent = :from and to_agent = :to),
  last_insert_rowid()), :to;
/*end*/

-- PostgreSQL looks once more after the insert, which waits for whoever sends under the same key at the same time.
-- unless :keyless
/*postgres
insert into refusals
select 'key_reused' from agent_messages
where :key is not null and idempotency_key = :key and from_agent = :from and to_agent = :to
  and (message_type <> :type or payload::jsonb <> :payload::jsonb);
*/

-- unless :beaten
update agent_registry set last_heartbeat = :now
where agent_id = :from and last_heartbeat < strftime('%Y-%m-%d %H:%M:%f', :now, '-5 seconds');
