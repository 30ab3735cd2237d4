-- Give messages back by their receipts, all or none, at once or after :delay seconds; returns id, address and status.
--
-- Past the retry limit a message is dead instead, and tells who had it. Else clearing `leased_by` ends the receipt.
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

-- One whose lease ran out was counted when it came back; leased again, it is counted below, once. (`status || ''`: rows
-- are found by their ids, not by the index of those that are ready.)
update agent_messages set status = 'leased', due_at = :now, retry_count = max(retry_count - 1, 0)
where id in (select cast(substr(value, 1, instr(value, '.') - 1) as integer) from json_each(:receipts))
  and status || '' = 'ready';

update agent_messages set
  status = case
    when retry_count >= retry_limit then 'dead'
    when :delay > 0 then 'scheduled'
    else 'ready' end,
  dead_reason = case
    when retry_count >= retry_limit then 'retries_exhausted' end,
  due_at = case
    when retry_count >= retry_limit then null
    when :delay > 0
      then min(strftime('%Y-%m-%d %H:%M:%f', :now, '+' || :delay || ' seconds'), coalesce(expires_at, '9999-12-31'))
    else expires_at end,
  retry_count = retry_count + iif(retry_count < retry_limit, 1, 0),
  leased_by = case
    when retry_count >= retry_limit then leased_by end,
  reason = coalesce(:reason, reason)
from (select (select cast(value as double precision) from agent_coordination_config
  where key = 'message_retry_limit') as retry_limit) settings
where id in (select cast(substr(value, 1, instr(value, '.') - 1) as integer) from json_each(:receipts))
  and status = 'leased'
returning id, to_agent, status;
