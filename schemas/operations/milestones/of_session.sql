-- The milestone that was made from the plan of a session since it was opened, or no row.
select m.record from coordination_sessions c cross join milestone_records m
where c.session_id = :session and m.data ->> 'planning_session' = :session
  and m.created_at >= coalesce(strftime('%Y-%m-%d %H:%M:%f', c.configuration ->> 'reopened_at'), '0001-01-01')
order by m.created_at, m.id limit 1;
