-- Made by bin/generate: the rows of operation_types after the one given, by their keys; see bus/copying.py.
select
  name,
  description,
  artifacts
from operation_types
where name > :after_a
order by name limit :limit;
