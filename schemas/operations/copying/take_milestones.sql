-- Made by bin/generate: the rows of milestones from a key on, by their keys; see bus/copying.py.
select
  id,
  title,
  status,
  priority,
  data,
  replace(strftime('%Y-%m-%d %H:%M:%f', created_at), ' ', 'T') || 'Z',
  replace(strftime('%Y-%m-%d %H:%M:%f', updated_at), ' ', 'T') || 'Z'
from milestones
where id >= :from_a
order by id limit :limit;
