-- Made by bin/generate: the rows of trace_exports_pending from a key on, by their keys; see bus/copying.py.
select
  target,
  kind,
  id,
  delivery
from trace_exports_pending
where (target, kind, id) >= (:from_a, :from_b, cast(:from_c as bigint))
order by target, kind, id limit :limit;
