-- Made by bin/generate: the rows of message_types from a key on, by their keys; see bus/copying.py.
select
  name,
  description,
  schema
from message_types
where name >= :from_a
order by name limit :limit;
