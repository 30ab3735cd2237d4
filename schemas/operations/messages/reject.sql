-- Bury messages by their receipts, all or none: they are dead, with the reason, until somebody redrives them. Who had
-- them stays on record.
update agent_registry set last_heartbeat = :now
where agent_id in (select leased_by from agent_messages where id in (
    select cast(substr(value, 1, instr(value, '.') - 1) as integer) from json_each(:receipts)))
  and last_heartbeat < strftime('%Y-%m-%d %H:%M:%f', :now, '-5 seconds');

/*postgres
select id from agent_messages
where id in (select cast(substr(value, 1, instr(value, '.') - 1) as integer) from json_each(:receipts))
  and leased_by is not null and delivery = any(array(
    select cast(substr(value, instr(value, '.') + 1) as integer) from json_each(:receipts)))
order by id for update;
*/
insert into refusals
select iif(m.id is null, 'unknown_message', 'lease_lost')
from json_each(:receipts) r
left join agent_messages m on m.id = cast(substr(r.value, 1, instr(r.value, '.') - 1) as integer)
where m.id is null or m.delivery <> cast(substr(r.value, instr(r.value, '.') + 1) as integer)
  or m.status not in ('leased', 'ready') or m.leased_by is null;

update agent_messages set status = 'dead', dead_reason = 'rejected', reason = :reason, due_at = null
where id in (select cast(substr(value, 1, instr(value, '.') - 1) as integer) from json_each(:receipts))
returning id;
