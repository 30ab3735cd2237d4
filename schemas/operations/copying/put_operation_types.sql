-- Made by bin/generate: puts a row into operation_types, as it was taken; see bus/copying.py.
insert into operation_types (name, description, artifacts) values (
  :name,
  :description,
  :artifacts);
