-- The checkpoint an agent goes on from: the one named, or (null) its latest; no row when it has none. After its session
-- was restarted, those made before count only by name.
select record from checkpoint_records
where agent_id = :agent and (checkpoint_id = :checkpoint or (:checkpoint is null
  and created_at > coalesce((
    select strftime('%Y-%m-%d %H:%M:%f', c.configuration ->> 'restarted_at') from agent_registry r
    join coordination_sessions c on c.session_id = r.session_id where r.agent_id = :agent), '0001-01-01')))
order by sequence desc limit 1;
