-- Who is on record as spawned or running, with what tells its process from all others; when it was last seen; and how
-- long it may stay unseen before it counts as gone, where its process can't be looked at.
select l.agent_id, l.host, l.pid, l.pid_namespace, l.process_started_at, l.boot_id,
  max(max(l.spawned_at, coalesce(l.started_at, '0001-01-01')),
    max(coalesce(l.last_seen_at, '0001-01-01'), coalesce(r.last_heartbeat, '0001-01-01'))),
  (select cast(value as real) from agent_coordination_config
    where key = iif(r.agent_id is null, 'unseen_after', 'stale_after'))
from agent_lifecycle l indexed by agent_lifecycle_open
left join agent_registry r on r.agent_id = l.registry_id and r.pid = l.pid
where l.status in ('spawned', 'running');
