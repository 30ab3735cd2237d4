-- Acknowledge receipts, a JSON array such as ["42.3"], all or none: the work is done and the message is over.
--
-- A receipt counts while its delivery is the last one and was not given back: `leased_by` is cleared by whoever gives
-- back. One whose lease ran out, but whose message nobody took, is leased again for a moment, because only
-- a leased message can be acknowledged. Acknowledging the same receipt twice is done, not an error. It is the holder's
-- heartbeat, but not within five seconds of the hand-over, which was one.
insert into refusals
select iif(m.id is null, 'unknown_message', 'lease_lost')
from json_each(:receipts) r
left join agent_messages m on m.id = cast(substr(r.value, 1, instr(r.value, '.') - 1) as integer)
where m.id is null or m.delivery <> cast(substr(r.value, instr(r.value, '.') + 1) as integer)
  or not (m.status = 'acknowledged' or (m.status in ('leased', 'ready') and m.leased_by is not null));

update agent_messages set status = 'leased', due_at = :now
where id in (select cast(substr(value, 1, instr(value, '.') - 1) as integer) from json_each(:receipts))
  and status = 'ready';

update agent_registry set last_heartbeat = :now
where agent_id in (select leased_by from agent_messages where id in (
    select cast(substr(value, 1, instr(value, '.') - 1) as integer) from json_each(:receipts))
    and delivered_at <= strftime('%Y-%m-%d %H:%M:%f', :now, '-5 seconds'))
  and last_heartbeat < strftime('%Y-%m-%d %H:%M:%f', :now, '-5 seconds');

update agent_messages set status = 'acknowledged', acknowledged_at = :now, due_at = null
where id in (select cast(substr(value, 1, instr(value, '.') - 1) as integer) from json_each(:receipts))
  and status = 'leased'
returning id;
