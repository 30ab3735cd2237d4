-- Made by bin/generate: the rows of operation_types from a key on, by their keys; see bus/copying.py.
select
  name,
  description,
  artifacts
from operation_types
where name >= :from_a
order by name limit :limit;
