-- What recovery, monitor or cleanup did, and on whose word.
insert into agent_health_log (agent_id, health_status, timestamp, details) values (:agent, :health, :now, :details);
