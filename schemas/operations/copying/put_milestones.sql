-- Made by bin/generate: puts a row into milestones, as it was taken; see bus/copying.py.
insert into milestones (id, title, status, priority, data, created_at, updated_at) values (
  :id,
  :title,
  :status,
  cast(:priority as bigint),
  :data,
  strftime('%Y-%m-%d %H:%M:%f', :created_at),
  strftime('%Y-%m-%d %H:%M:%f', :updated_at));
