-- Made by bin/generate: puts a row into state_types, as it was taken; see bus/copying.py.
insert into state_types (name, description) values (
  :name,
  :description);
