"""What a loop keeps beside the model goes with it through the switch."""
