-- Forget a value; returns whether there was one. (In `returning`, SQLite 3.40 takes `x is null` for false.)
delete from agent_state where agent_id = :agent and state_key = :key
returning coalesce(expires_at, '9999') > :now;
