-- Made by bin/generate: the rows of agent_types from a key on, by their keys; see bus/copying.py.
select
  name,
  description
from agent_types
where name >= :from_a
order by name limit :limit;
