-- One milestone, or no row.
select record from milestone_records where id = :milestone;
