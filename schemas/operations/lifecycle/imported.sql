-- Whether the end of an agent that was imported before, told by its pid and start, is still to be told; or no row.
select status in ('spawned', 'running') or unseen = 1 from agent_lifecycle
where origin = 'imported' and pid = :pid and started_at = :started_at;
