-- Lives that were not looked at yet, in their order, at most :limit of them: id, record, whether it has ended. One that was
-- only found gone counts as ended a minute later: until then whoever waited for it may say how.
select agent_id, record, status not in ('spawned', 'running')
  and (unseen = 0 or coalesce(completed_at, '0001-01-01') <= strftime('%Y-%m-%d %H:%M:%f', :now, '-60 seconds'))
from lifecycle_records
where agent_id > (select life_id from trace_exports where target = :target)
order by agent_id limit :limit;
