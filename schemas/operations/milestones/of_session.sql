-- The milestone that was made from the plan of a session, or no row.
select record from milestone_records where data ->> 'planning_session' = :session order by created_at, id limit 1;
