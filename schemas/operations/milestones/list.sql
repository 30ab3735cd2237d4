-- The milestones, newest first; of one status, when given.
select record from milestone_records where :status is null or status = :status
order by created_at desc, id;
