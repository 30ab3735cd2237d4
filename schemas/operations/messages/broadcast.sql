-- Store a copy of one message for each agent of the sender's session that has not ended, the sender excepted; returns
-- their ids and addresses. An idempotency key holds for each recipient by itself, as in send.sql.
insert into refusals
select 'unknown_agent' where not exists (select 1 from agent_registry where agent_id = :from);

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
    select m.id, m.message_type, m.payload from agent_registry me
    join agent_registry r on r.session_id = me.session_id and r.agent_id <> :from
    join agent_messages m on m.from_agent = :from and m.to_agent = r.agent_id and m.idempotency_key = :key
    where me.agent_id = :from and :key is not null and json_valid(:payload))
select 'key_reused' from sent where message_type <> :type
union all
select 'key_reused' from nodes group by pair, path, kind, atom having count(*) <> 2;
/*end*/
/*postgres
insert into refusals
select 'key_reused' from agent_messages
where :key is not null and idempotency_key = :key and from_agent = :from and to_agent in (
    select r.agent_id from agent_registry me join agent_registry r on r.session_id = me.session_id
    where me.agent_id = :from and r.agent_id <> :from)
  and (message_type <> :type or payload::jsonb <> :payload::jsonb);
*/

-- Where nobody is there the triggers judge a copy for the sender itself, which is not stored: it has no id that there can be.
/*sqlite*/
insert or ignore into agent_messages (id, session_id, from_agent, to_agent, message_type, payload)
select 0, me.session_id, :from, :from, :type, :payload
/*end*/
/*postgres select message_judged(me.session_id, :from, :type, :payload) */
from agent_registry me
where me.agent_id = :from and not exists (
  select 1 from agent_registry r where r.session_id = me.session_id and r.agent_id <> :from
    and r.status not in ('completed', 'failed', 'terminated'));

insert into agent_messages (session_id, from_agent, to_agent, message_type, priority, status, created_at, due_at,
  expires_at, idempotency_key, correlation_id, reply_to, payload, traceparent, digest)
select me.session_id, :from, r.agent_id, :type, :priority,
  iif(:delay > 0, 'scheduled', 'ready'), :now,
  iif(:delay > 0, strftime('%Y-%m-%d %H:%M:%f', :now, '+' || :delay || ' seconds'), null),
  strftime('%Y-%m-%d %H:%M:%f', :now, '+' || :expires || ' seconds'), :key, :correlation, :reply_to, :payload, :traceparent, :digest
from agent_registry me
join agent_registry r on r.session_id = me.session_id and r.agent_id <> :from
  and r.status not in ('completed', 'failed', 'terminated')
where me.agent_id = :from
order by r.agent_id
on conflict (from_agent, to_agent, idempotency_key) where idempotency_key is not null
do update set idempotency_key = excluded.idempotency_key
returning id, to_agent;

-- PostgreSQL looks once more after the insert, which waits for whoever sends under the same key at the same time.
/*postgres
insert into refusals
select 'key_reused' from agent_messages
where :key is not null and idempotency_key = :key and from_agent = :from and to_agent in (
    select r.agent_id from agent_registry me join agent_registry r on r.session_id = me.session_id
    where me.agent_id = :from and r.agent_id <> :from)
  and (message_type <> :type or payload::jsonb <> :payload::jsonb);
*/

-- unless :beaten
update agent_registry set last_heartbeat = :now
where agent_id = :from and last_heartbeat < strftime('%Y-%m-%d %H:%M:%f', :now, '-5 seconds');
