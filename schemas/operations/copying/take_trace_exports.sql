-- Made by bin/generate: the rows of trace_exports from a key on, by their keys; see bus/copying.py.
select
  target,
  message_id,
  life_id,
  holder,
  exported,
  replace(strftime('%Y-%m-%d %H:%M:%f', updated_at), ' ', 'T') || 'Z'
from trace_exports
where target >= :from_a
order by target limit :limit;
