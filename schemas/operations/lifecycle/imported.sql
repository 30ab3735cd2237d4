-- The record of an agent that was imported before, told by its pid and start, and whether its end is still to be told.
select agent_id, status in ('spawned', 'running') or unseen = 1 from agent_lifecycle
where origin = 'imported' and pid = :pid and started_at = :started_at;
