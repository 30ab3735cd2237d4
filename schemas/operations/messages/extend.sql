-- Let leases run for :lease seconds from now (null: the configured lease), all or none.
-- One that ran out, but whose message nobody took, is leased again under the same receipt. After a clock was set back it
-- counts as delivered now, so that messages/receive.sql does not take it for a lease of the time before. On SQLite
-- it returns the addresses of those whose lease is over sooner than it was: whoever waits for them sleeps until then.
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

/*sqlite*/
select to_agent from agent_messages
where id in (select cast(substr(value, 1, instr(value, '.') - 1) as integer) from json_each(:receipts))
  and status = 'leased'
  and due_at > strftime('%Y-%m-%d %H:%M:%f', :now, '+' || coalesce(cast(:lease as text),
    (select value from agent_coordination_config where key = 'lease_seconds')) || ' seconds');
/*end*/

update agent_messages set
  retry_count = iif(status = 'ready', max(retry_count - 1, 0), retry_count), status = 'leased',
  delivered_at = min(delivered_at, :now),
  due_at = strftime('%Y-%m-%d %H:%M:%f', :now, '+' || coalesce(cast(:lease as text),
    (select value from agent_coordination_config where key = 'lease_seconds')) || ' seconds')
where id in (select cast(substr(value, 1, instr(value, '.') - 1) as integer) from json_each(:receipts));
