-- Made by bin/generate: the rows of message_types after the one given, by their keys; see bus/copying.py.
select
  name,
  description,
  schema
from message_types
where name > :after_a
order by name limit :limit;
