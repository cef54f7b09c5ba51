"""What people look at after a prediction: pictures, tables and profiles."""
