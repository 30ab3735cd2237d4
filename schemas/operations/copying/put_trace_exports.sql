-- Made by bin/generate: puts a row into trace_exports, as it was taken; see bus/copying.py.
insert into trace_exports (target, message_id, life_id, holder, exported, updated_at) values (
  :target,
  cast(:message_id as bigint),
  cast(:life_id as bigint),
  :holder,
  cast(:exported as bigint),
  strftime('%Y-%m-%d %H:%M:%f', :updated_at));
