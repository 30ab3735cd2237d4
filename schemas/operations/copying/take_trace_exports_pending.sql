-- Made by bin/generate: the rows of trace_exports_pending after the one given, by their keys; see bus/copying.py.
select
  target,
  kind,
  id,
  delivery
from trace_exports_pending
where (target, kind, id) > (:after_a, :after_b, cast(:after_c as bigint))
order by target, kind, id limit :limit;
