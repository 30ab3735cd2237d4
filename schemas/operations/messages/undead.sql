-- Those of a JSON array of ids that can't be redriven, each with the code that says why; see redrive.sql.
select i.value, iif(m.id is null, 'unknown_message', 'not_dead')
from json_each(:ids) i left join agent_messages m on m.id = cast(i.value as integer)
where m.id is null or not (m.status = 'dead'
  or (m.status in ('scheduled', 'ready') and m.leased_by is null and coalesce(m.expires_at <= :now, false)));
