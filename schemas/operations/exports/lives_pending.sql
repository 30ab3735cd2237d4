-- Lives that had not ended when they were looked at, and now have, or are not on record any more (null).
select p.id, l.record
from trace_exports_pending p left join lifecycle_records l on l.agent_id = p.id
where p.target = :target and p.kind = 'life' and (l.agent_id is null or (l.status not in ('spawned', 'running')
  and (l.unseen = 0 or coalesce(l.completed_at, '0001-01-01') <= strftime('%Y-%m-%d %H:%M:%f', :now, '-60 seconds'))))
order by p.id limit :limit;
