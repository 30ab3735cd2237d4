-- Made by bin/generate: the rows of state_types from a key on, by their keys; see bus/copying.py.
select
  name,
  description
from state_types
where name >= :from_a
order by name limit :limit;
