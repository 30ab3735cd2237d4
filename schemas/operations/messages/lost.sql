-- Those of a JSON array of receipts that can do nothing any more, each with the code that says why. `beside`: a status in
-- which they can, beside leased and ready: what is acknowledged may be acknowledged again.
select r.value, iif(m.id is null, 'unknown_message', 'lease_lost')
from json_each(:receipts) r
left join agent_messages m on m.id = cast(substr(r.value, 1, instr(r.value, '.') - 1) as integer)
where m.id is null or m.delivery <> cast(substr(r.value, instr(r.value, '.') + 1) as integer)
  or not (m.status in ('leased', 'ready') and m.leased_by is not null or m.status = :beside);
