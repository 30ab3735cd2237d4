-- Made by bin/generate: the rows of agent_types after the one given, by their keys; see bus/copying.py.
select
  name,
  description
from agent_types
where name > :after_a
order by name limit :limit;
