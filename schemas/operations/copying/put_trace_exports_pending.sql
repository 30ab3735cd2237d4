-- Made by bin/generate: puts a row into trace_exports_pending, as it was taken; see bus/copying.py.
insert into trace_exports_pending (target, kind, id, delivery) values (
  :target,
  :kind,
  cast(:id as bigint),
  cast(:delivery as bigint));
