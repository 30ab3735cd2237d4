-- Made by bin/generate: the rows of state_types after the one given, by their keys; see bus/copying.py.
select
  name,
  description
from state_types
where name > :after_a
order by name limit :limit;
