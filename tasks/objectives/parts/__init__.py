"""What objectives are made of: modules beside the model, a teacher, what it has said before."""
