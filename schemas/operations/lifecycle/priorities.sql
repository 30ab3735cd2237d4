-- What each priority took, of each type of agent; of one :priority, or all (null): numbers by what they count, then words,
-- then those without one.
select priority_number, agent_type, replace(min(spawned_at), ' ', 'T') || 'Z', replace(max(completed_at), ' ', 'T') || 'Z',
  count(*), cast(sum(duration_ms) as bigint), cast(avg(duration_ms) as double precision)
from agent_lifecycle indexed by idx_priority_number
where :priority is null or priority_number = :priority
group by priority_number, agent_type
order by priority_number is null,
  /*sqlite*/ priority_number not glob '[0-9]*' and priority_number not glob '[-+.][0-9]*', cast(priority_number as real), /*end*/
  /*postgres substring(priority_number from '^(?:[-+]?[0-9]+(?:[.][0-9]*)?|[.][0-9]+)(?:[eE][-+]?[0-9]{1,3})?')::numeric, */
  priority_number, min(spawned_at), agent_type;
