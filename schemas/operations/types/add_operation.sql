-- Add an operation type with the artifacts it promises, or change what is not null of one.
insert into operation_types (name, description, artifacts)
values (:name, coalesce(:description, ''), coalesce(:artifacts, '[]'))
on conflict (name) do update set
  description = coalesce(:description, operation_types.description),
  artifacts = coalesce(:artifacts, operation_types.artifacts);
