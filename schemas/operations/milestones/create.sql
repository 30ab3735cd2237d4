-- A new milestone, or, under an id that is there, nothing; returns the one that is there then.
insert into milestones (id, title, priority, data, created_at, updated_at)
values (:milestone, :title, :priority, :data, :now, :now)
on conflict (id) do nothing;

select record from milestone_records where id = :milestone;
