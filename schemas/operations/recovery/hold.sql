-- What is found of a session (or null) and its agents, or of one agent (or null), stays so until the end of the
-- transaction: nobody else recovers it, and who is not dead after all is heard of before, or after. On a file whoever
-- writes is alone.
/*postgres
select session_id from coordination_sessions where session_id = :session for update;
select agent_id from agent_registry where session_id = :session or agent_id = :agent order by agent_id for update;
*/
